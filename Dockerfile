# The quickstart in two lines, without network after the image is built:
#   docker build -t minilima .
#   docker run --rm -v "$PWD/outputs:/minilima/outputs" minilima +experiment=quickstart
# For GPUs (the host needs the NVIDIA container toolkit):
#   docker build --build-arg DEVICE=cuda -t minilima:cuda .
#   docker run --rm --gpus all -v "$PWD/outputs:/minilima/outputs" minilima:cuda +experiment=quickstart compute=gpu
ARG DEVICE=cpu

FROM python:3.12-slim AS cpu
# With PyTorch's own index of CPU builds (--build-arg TORCH_INDEX=…) torch comes without CUDA, a tenth of the size.
ARG TORCH_INDEX=
ENV PIP_EXTRA_INDEX_URL=$TORCH_INDEX TORCH=torch==2.13.0

FROM nvidia/cuda:12.8.1-devel-ubuntu24.04 AS cuda
# devel: DeepSpeed compiles its optimizers with nvcc.
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv python3-dev && rm -rf /var/lib/apt/lists/*
ENV TORCH=torch==2.13.0

FROM ${DEVICE}
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 MINILIMA_CACHE=/minilima/cache PATH=/venv/bin:$PATH
WORKDIR /minilima
RUN python3 -m venv /venv
COPY constraints.txt setup.py README.md ./
COPY minilima minilima
COPY conf conf
COPY docs docs
# torch first: the build of DeepSpeed asks for it.
RUN pip install "$TORCH" && pip install -c constraints.txt . && minilima fetch
# What a run writes belongs to whoever mounts the folder: docker run --user "$(id -u):$(id -g)" …
RUN mkdir -p outputs && chmod -R a+rwX outputs cache
VOLUME /minilima/outputs
ENTRYPOINT ["minilima"]
CMD ["--help"]
