"""Takes a tuned model out for alpaca_eval: the model configs with which `alpaca_eval evaluate_from_model` runs it.

store/model-… ─> FOLDER/configs.yaml            the model at a server, asked through alpaca_eval's OpenAI client
                        client.yaml chat.txt    the server's address; {instruction} as a user's turn
                        configs_local.yaml      the model in alpaca_eval's own process, on a GPU
                        prompt.txt              the model's chat template around {instruction}
store/answers-… ─>      model_outputs.json      our answers, where they are built
                        reference_outputs.json  the base model's, to pass as --evaluation_dataset or --reference_outputs
alpaca_eval 0.6.6 loads a model by options that transformers 5 refuses without a GPU; a served model works everywhere.
"""

import shutil
from pathlib import Path

from omegaconf import OmegaConf

from minilima.config.schema import Config
from minilima.formats.files import new_folder, sizes, write_atomic
from minilima.store.entries import Artifact

ADDRESS = "http://localhost:8000/v1"
"""Where `vllm serve` and `transformers serve` listen, unless compute.served_at says otherwise."""
CHAT = "<|im_start|>user\n{instruction}\n<|im_end|>"
"""How alpaca_eval's OpenAI client marks turns, whatever the model's template: it divides the text there into messages."""


def export_model(
    config: Config, model: Artifact, answers: Artifact | None, reference_answers: Artifact | None, folder: Path
) -> dict[str, int]:
    """Writes the experiment's model config into a new folder.

    Args:
        config: the experiment.
        model: the tuned model.
        answers: its answers, where they are built.
        reference_answers: those that they are judged against, where they are built.
        folder: must not be there yet, or be empty. The configs name it: it cannot be moved.

    Returns:
        The files written, with their sizes in bytes.

    Raises:
        MinilimaError: the folder holds something.
    """
    location = model.path.resolve()
    with new_folder(folder) as aside:
        write_atomic(aside / "prompt.txt", prompt_template(str(location)))
        write_atomic(aside / "chat.txt", CHAT)
        address = config.compute.served_at[0] if config.compute.served_at else ADDRESS
        # alpaca_eval's judge keeps the address and the key of the environment: these are the model's alone.
        _write_yaml(aside / "client.yaml", {"default": [{"api_key": "none", "base_url": address}]})
        _write_yaml(aside / "configs.yaml", {location.name: served_settings(config, location.name, folder.absolute())})
        local = model_settings(config, location, folder.absolute() / "prompt.txt")
        _write_yaml(aside / "configs_local.yaml", {location.name: local})
        for artifact, name in ((answers, "model_outputs.json"), (reference_answers, "reference_outputs.json")):
            if artifact is not None:
                shutil.copyfile(artifact.path / "model_outputs.json", aside / name)
    return sizes(folder)


def _write_yaml(file: Path, content: dict[str, object]) -> None:
    write_atomic(file, OmegaConf.to_yaml(OmegaConf.create(content)))


def served_settings(config: Config, name: str, folder: Path) -> dict[str, object]:
    """An entry of alpaca_eval's configs.yaml that asks a server for the model `name`; client.yaml lies in `folder`."""
    answering = config.eval
    arguments: dict[str, object] = {
        "model_name": name,
        "client_config_path": str(folder / "client.yaml"),
        "requires_chatml": True,
        "max_tokens": answering.max_tokens,
        "temperature": answering.temperature,
        "top_p": answering.top_p,
        "price_per_token": 0.0,
    }
    if answering.repetition_penalty is not None:
        arguments["extra_body"] = {"repetition_penalty": answering.repetition_penalty}
    return {
        "prompt_template": str(folder / "chat.txt"),
        "fn_completions": "openai_completions",
        "completions_kwargs": arguments,
        "pretty_name": config.name,
    }


def model_settings(config: Config, model: Path, prompt: Path) -> dict[str, object]:
    """An entry of alpaca_eval's configs.yaml (models_configs/README.md of alpaca_eval 0.6.6) for a model on a GPU."""
    answering = config.eval
    sampling: dict[str, object] = {"do_sample": answering.temperature > 0}
    if answering.temperature > 0:
        sampling |= {"temperature": answering.temperature, "top_p": answering.top_p}
    if answering.repetition_penalty is not None:
        sampling["repetition_penalty"] = answering.repetition_penalty
    arguments = {"model_name": str(model), "max_new_tokens": answering.max_tokens, **sampling}
    return {
        "prompt_template": str(prompt),
        "fn_completions": "huggingface_local_completions",
        "completions_kwargs": {**arguments, "model_kwargs": {"torch_dtype": "bfloat16"}},
        "pretty_name": config.name,
    }


def prompt_template(model: str) -> str:
    """What the model sees before it answers, with {instruction} where the user speaks.

    alpaca_eval tokenizes it like any text: a beginning-of-text token that the tokenizer adds must not stand there as well.
    """
    from minilima.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(model)
    turn = [{"role": "user", "content": "{instruction}"}]
    text = str(tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False))
    wanted = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
    begins = str(tokenizer.bos_token or "")
    shorter = text.removeprefix(begins)
    return next((form for form in (text, shorter) if tokenizer(form)["input_ids"] == wanted), text)
