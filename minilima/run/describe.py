"""What a stage will do, and what came out of it, in a few words for tables and reports."""

import math
from typing import Any

from minilima.config.choices import DataKind, GeneratorKind, JudgeKind, Orders, Pick
from minilima.config.schema import Config
from minilima.console import count
from minilima.store.sources import BASES, Sources


def describe_stage(role: str, config: Config, sources: Sources) -> str:
    """What a stage will do, in a few words."""
    data, dataset, sft, judge = config.data, config.dataset, config.sft, config.judge
    if role in BASES:
        return f"{sources.converted(role).location} from the package index, converted to safetensors"
    if role == "pool":
        told = sources.data.name if sources.data else sources.seeds.name if sources.seeds else "nothing"
        if data.kind == DataKind.file:
            return f"rows of {told}"
        writer = config.generator.model or ("the base model" if config.generator.kind == GeneratorKind.local else "?")
        if data.kind == DataKind.answers:
            return f"answers to the tasks of {told}, written by {writer}"
        how = "" if data.kind == DataKind.self_instruct else f" ({data.kind})"
        return f"{data.instructions:,} instructions and instances, written by {writer} from {told}{how}"
    if role == "dataset":
        size = f"{dataset.size:,} examples" if dataset.size else "all examples that pass the filters"
        return size + (", seeds among them" if dataset.include_seeds else "")
    if role == "model" and sources.dev_set is not None:
        how = f"judge {judge.kind} prefers" if config.epoch.select == Pick.judge else "has the lowest loss"
        return f"the epoch, of {sft.epochs}, that {how} on {sources.dev_set.name}"
    if role in ("model", "epochs"):
        steps = f", {sft.epochs * math.ceil(dataset.size / sft.batch_size):,} steps" if dataset.size else ""
        return f"{sft.method} fine-tuning, {count(sft.epochs, 'epoch')}{steps} of {sft.batch_size}, rate {sft.learning_rate:g}"
    if role == "reference_answers" and sources.reference is not None:
        return f"the answers in {sources.reference.name}, and the base model's loss on those of {sources.eval_set.name}"
    if role in ("answers", "reference_answers"):
        who = "tuned" if role == "answers" else "base"
        prompts = f"the first {config.eval_set.size} of " if config.eval_set.size else ""
        return f"the {who} model on {prompts}{sources.eval_set.name}, up to {config.eval.max_tokens:,} tokens each"
    asked = {Orders.both: "both orders", Orders.random: "one random order"}[judge.orders]
    orders = {JudgeKind.reference: "symmetric", JudgeKind.alpaca_eval: "one random order"}.get(judge.kind, asked)
    kind = f"{judge.kind}'s {judge.annotators_config}" if judge.kind == JudgeKind.alpaca_eval else judge.kind
    return f"judge {kind}{f' ({judge.model})' if judge.model else ''}, {orders}"


def describe_outcome(role: str, metrics: dict[str, Any]) -> str:
    """What came out of a stage, in a few words."""
    if role in BASES:
        return f"{metrics['parameters'] / 1e6:.0f} M parameters"
    if role == "pool":
        rejected = f", {metrics['rejected']:,} rejected" if metrics.get("rejected") else ""
        # The target is the rule; whatever else ended the generation is worth telling.
        stopped = "" if (why := metrics.get("stopped_by", "target")) == "target" else f", stopped by {why.replace('_', ' ')}"
        tasks = count(metrics["tasks"], "machine-written task") if "tasks" in metrics else count(metrics["rows"], "row")
        return tasks + rejected + stopped
    if role == "dataset":
        return f"{metrics['examples']:,} examples ({metrics['seed']:,} seeds, {metrics['examples'] - metrics['seed']:,} other)"
    if role in ("model", "epochs"):
        chosen = f", epoch {metrics['chosen_epoch']} of {metrics['epochs']} chosen" if "chosen_epoch" in metrics else ""
        return f"{metrics['steps']:,} steps, loss {metrics['first_loss']:.2f} to {metrics['last_loss']:.2f}{chosen}"
    if role in ("answers", "reference_answers"):
        return f"{metrics['answers']:,} answers, {metrics['mean_words']:.0f} words each, {metrics['truncated']:,} cut"
    counts = f"{metrics['wins']} won, {metrics['losses']} lost, {metrics['ties']} tied"
    return f"{metrics['judged']:,} of {metrics['prompts']:,} judged: {counts}"
