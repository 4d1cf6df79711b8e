"""The Dockerfile says what the Makefile, the documentation and the constraints say, and copies what the package is built from."""

import re
import shlex
from pathlib import Path

from minilima.config.compose import load_config

ROOT = Path(__file__).parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_the_documentation_shows_the_lines_of_the_dockerfile() -> None:
    shown = re.findall(r"^#   (docker .*)$", DOCKERFILE, re.M)
    page = (ROOT / "docs" / "howto" / "share.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```\n(docker build .*?)```", page, re.M | re.S)
    assert block.splitlines() == shown[:2]
    assert "--build-arg DEVICE=cuda" in page and "--build-arg DEVICE=cuda" in shown[2]
    for line in shown:
        words = shlex.split(line)
        if words[1] == "run":
            image = next(number for number, word in enumerate(words) if word.startswith("minilima") and ":/" not in word)
            load_config(words[image + 1 :])


def test_the_image_installs_as_the_makefile_does() -> None:
    (installed,) = re.findall(r'^RUN pip install "\$TORCH" && (.*)$', DOCKERFILE, re.M)
    by_hand = re.findall(r"\$\(BIN\)/python -m (pip install .*|minilima .*)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    wanted = [line.replace("--quiet ", "").replace("-e '.[dev]'", ".") for line in by_hand if "upgrade" not in line][:2]
    assert installed.split(" && ") == wanted == ["pip install -c constraints.txt .", "minilima fetch"]
    (version,) = re.findall(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.M)
    assert set(re.findall(r"TORCH=torch==(\S+)", DOCKERFILE)) == {version}


def test_what_is_copied_is_there_and_sent_to_the_build() -> None:
    copied = {word for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.M) for word in line.split()[:-1]}
    sent = re.findall(r"^!(.*)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.M)
    assert copied == set(sent) and all((ROOT / name).exists() for name in copied)
    packaged = re.findall(r'"minilima\.\w+": "(\w+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert {"minilima", "setup.py", "README.md", "constraints.txt", *packaged} == copied
