"""The verb `init`: a starter folder for an experiment of one's own, which runs as it is."""

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from minilima import console
from minilima.cli.options import Parser, plain_line

if TYPE_CHECKING:
    import argparse

SEEDS = (
    {
        "id": "seed_1", "name": "thank_you_note", "is_classification": False,
        "instruction": "Write a short thank-you note to the person named below.",
        "instances": [{"input": "Maria, who watered my plants", "output": "Dear Maria,\n\nThank you for looking after my plants. "
                       "They have never looked better. Let me know when I can return the favour.\n\nBest wishes"}],
    },
    {
        "id": "seed_2", "name": "metres_to_centimetres", "is_classification": False,
        "instruction": "How many centimetres are 2.5 metres?",
        "instances": [{"input": "", "output": "2.5 metres are 250 centimetres: a metre has 100 centimetres."}],
    },
)  # fmt: skip
EVAL = (
    {
        "id": "eval_1", "category": "writing", "instruction": "Write one sentence that invites a neighbour for tea on Sunday.",
        "output": "Would you like to come over for tea on Sunday afternoon, around three?",
    },
    {
        "id": "eval_2", "category": "knowledge", "instruction": "Why does a spoon look bent in a glass of water?",
        "output": "Light changes direction when it passes from water into air. So the part of the spoon under water seems to be "
        "in another place than it is, and the spoon looks bent.",
    },
)  # fmt: skip

EXPERIMENT = """\
# @package _global_
# An experiment of your own. All its settings: {line}
# Its paths are whole ones, so that it runs from any folder; where you move it, change them.
defaults:
  - override /compute: cpu      # or gpu; auto looks for one itself
  - override /model: smollm2_135m  # the base model; model.path=/a/folder or model.hub=owner/name for another one
  - override /seeds: file       # your own seed tasks
  - override /data: self_instruct  # the model writes more tasks like the seeds; data=file trains on a file of yours
  - override /eval_set: file    # your own prompts
  - override /judge: reference  # offline: which answer is closer to yours; judge=gpt5_mini and others ask a model

name: mine                      # names the run's folder

seeds:
  # two to begin with; a hundred of many kinds make better data
  path: {folder}/seeds.jsonl

data:
  instructions: 4               # tasks to write; raise it to some hundreds
  requests_per_round: 4         # one task a reply
  demonstrations: 2             # tasks shown in a prompt: no more than there are seeds
  machine_demonstrations: 0     # of them machine-written
  max_rounds: 2                 # a bound on the time
  instruction_tokens: 60        # longest new instruction
  instance_tokens: 80           # longest reply with an input and an answer
  instance_demonstrations: 2    # worked seeds shown before

dataset:
  size: null                    # null = all examples; a number chooses so many
  include_seeds: true           # train on the seeds too

sft:
  epochs: 2                     # passes over the examples
  batch_size: 2                 # examples of a step
  learning_rate: 1e-4           # high, for so few steps

eval_set:
  # two to begin with; an interval that says something needs a hundred or more
  path: {folder}/eval.jsonl

eval:
  temperature: 0                # greedy
  repetition_penalty: 1.1       # greedy small models loop without it
  max_tokens: 48                # longest answer
"""


def declare(verbs: "argparse._SubParsersAction[Parser]") -> None:
    parser = verbs.add_parser(
        "init",
        summary="write a starter folder for an experiment of your own",
        description="Writes FOLDER/experiment/mine.yaml with a comment at each line, FOLDER/seeds.jsonl and FOLDER/eval.jsonl "
        "with two rows each, and shows the command that runs them as they are.",
        examples=("init", "init my_conf"),
    )
    parser.add_argument("folder", nargs="?", default="my_conf", metavar="FOLDER", help="a new or empty folder (default: my_conf)")
    parser.set_defaults(handler=handle)


def handle(*, folder: str) -> int:
    """Writes the folder and says what to type."""
    where = Path(folder).absolute()
    write_starter(where)
    console.say(f"Wrote {folder}:")
    console.show_table(
        ("file", "what it is"),
        [
            ("experiment/mine.yaml", "the experiment: change it line by line"),
            ("seeds.jsonl", "seed tasks: what the data are made like"),
            ("eval.jsonl", "evaluation prompts, each with an answer of yours"),
        ],
    )
    for verb, what in (("plan", "what would be built:"), ("", "run it:")):
        line = plain_line(*filter(None, [verb]), "--config-dir", str(where), "+experiment=mine")
        console.say(f"{what:<22}{line}", whole=True)
    return 0


def write_starter(folder: Path) -> None:
    """Writes the three files into a new folder.

    Raises:
        MinilimaError: the folder holds something.
    """
    from minilima.formats.files import new_folder, write_atomic, write_jsonl

    # A path in YAML is quoted as JSON is, where it holds what YAML reads in another way.
    plain = str(folder).replace("\\", "/")
    quoted = re.search(r"[^\w./-]", plain) is not None
    text = EXPERIMENT.replace("{line}", shlex.join(["minilima", "--cfg", "job", "--config-dir", plain, "+experiment=mine"]))
    for name in ("seeds.jsonl", "eval.jsonl"):
        path = f"{plain}/{name}"
        text = text.replace(f"{{folder}}/{name}", json.dumps(path, ensure_ascii=False) if quoted else path)
    with new_folder(folder) as aside:
        write_atomic(aside / "experiment" / "mine.yaml", text)
        write_jsonl(aside / "seeds.jsonl", SEEDS)
        write_jsonl(aside / "eval.jsonl", EVAL)
