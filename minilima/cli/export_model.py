"""`export model`: a run's tuned model as a folder for other people, on the hub, and as a file for llama.cpp and Ollama."""

import shlex
from pathlib import Path

from minilima import console
from minilima.config.choices import Thinking
from minilima.models.checkpoint import context_tokens, read_config


def write_model(run: str, folder: str, *, adapter: bool, gguf: str | None, repository: str | None, data_set: str | None) -> None:
    """Writes the folder, uploads it where a repository is named, and says what to do with it.

    Raises:
        MinilimaError: there is no such run, the folder holds something, or a package for GGUF is missing.
    """
    from minilima.report.export_tuned import export_tuned
    from minilima.report.finished import open_run
    from minilima.report.hub import open_repository, push

    opened = open_run(run)
    notes: list[str] = []

    def as_gguf(aside: Path) -> None:
        from minilima.report.gguf import compare_predictions, modelfile, write_gguf

        assert gguf is not None
        asked = opened.settings.get("model.thinking")
        thinking = Thinking(asked) if asked else None
        file = aside / f"model-{gguf}.gguf"
        text = modelfile(aside, file.name, context_tokens(read_config(aside)), thinking)
        write_gguf(aside, gguf, file)
        notes.append(f"{file.name} was read back: {compare_predictions(aside, file, gguf, thinking)}.")
        (aside / "Modelfile").write_text(text, encoding="utf-8")
        with (aside / "README.md").open("a", encoding="utf-8") as card:
            card.write(f"\n## llama.cpp and Ollama\n\n{notes[-1]}\n\n```\nollama create {opened.name} -f Modelfile\n```\n")

    if gguf is not None:
        from minilima.report.gguf import check_programs

        check_programs(gguf)
    if repository is not None:
        open_repository(repository, "model")  # who is not logged in hears of it before a file of minutes is made
    extra = as_gguf if gguf else None
    files = export_tuned(opened, Path(folder), adapter=adapter, data_set=data_set, repository=repository, extra=extra)
    console.say(f"Wrote {'the adapters' if adapter else 'the model'} of {opened.name} to {folder}:")
    console.show_table(("file", "bytes"), [(name, f"{size:,}") for name, size in files.items()])
    for note in notes:
        console.say(note)
    if gguf is not None:
        console.say(shlex.join(["ollama", "create", opened.name, "-f", str(Path(folder) / "Modelfile")]), whole=True)
    console.say("Read README.md and state a licence in its header before you pass the model on.")
    if repository is not None:
        console.say(f"Uploaded to {push(Path(folder), repository, 'model')}", whole=True)
