# ruff: noqa: E501 (templates keep the lines of their makers)
"""Families of models: chat template, tokenizer and architecture of each, as published, with a few thousand random weights.

The templates are written after those of the models named; what a conversation needs is in them, tools are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from minilima.formats.files import DATA

VOCABULARY = 500
SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 256, "vocab_size": 800, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


@dataclass(frozen=True, kw_only=True)
class Family:
    """One row of the table in docs/reference/models.md."""

    name: str
    """Of the models that are made like this."""
    architecture: str
    """`model_type` of transformers."""
    template: str | None
    """None: the model has none."""
    special: tuple[str, ...]
    """Special tokens of its tokenizer."""
    eos: str
    bos: str | None = None
    pad: str | None = None
    adds_bos: bool = False
    """Whether the tokenizer begins every text with `bos`."""
    pieces: bool = False
    """Whether words begin with ▁ (SentencePiece's form), and not bytes with Ġ."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of the architecture, beside SMALL."""
    end: str = ""
    """The token that ends an answer; empty = eos."""
    systems: bool = True
    """Whether its template takes a system turn."""
    adapters: bool = True
    """Whether peft has adapters for it."""
    strips: bool = False
    """Whether special tokens take the whitespace behind them (Phi-3)."""

    @property
    def ends(self) -> str:
        return self.end or self.eos


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN25 = (
    "{%- if messages[0]['role'] == 'system' %}{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}"
    "{%- endif %}{%- for message in messages %}"
    "{%- if message.role == 'user' or (message.role == 'system' and not loop.first) or message.role == 'assistant' %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
QWEN3 = (
    "{%- if messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{%- endif %}"
    "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}"
    "{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}"
    "{%- if ns.multi_step_tool and message.role == 'user' %}{%- set ns.multi_step_tool = false %}"
    "{%- set ns.last_query_index = index %}{%- endif %}{%- endfor %}"
    "{%- for message in messages %}{%- set content = message.content %}"
    "{%- if (message.role == 'user') or (message.role == 'system' and not loop.first) %}"
    "{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}"
    "{%- elif message.role == 'assistant' %}{%- set reasoning_content = '' %}"
    "{%- if message.reasoning_content is string %}{%- set reasoning_content = message.reasoning_content %}"
    "{%- elif '</think>' in content %}"
    "{%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{%- if loop.index0 > ns.last_query_index %}{%- if loop.last or (not loop.last and reasoning_content) %}"
    "{{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}"
    "{%- else %}{{- '<|im_start|>' + message.role + '\n' + content }}{%- endif %}"
    "{%- else %}{{- '<|im_start|>' + message.role + '\n' + content }}{%- endif %}{{- '<|im_end|>\n' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}"
    "{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}{{- 'Cutting Knowledge Date: December 2023\n' }}"
    "{{- 'Today Date: ' + date_string + '\n\n' }}{{- system_message }}{{- '<|eot_id|>' }}{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{%- endif %}"
)
LLAMA3_TOKENS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{'<|system|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'user' %}{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
PHI3_TOKENS = ("<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
R1_BODY = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}"
    "{% elif message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}"
)
R1 = R1_BODY + "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
R1_TOKENS = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
ZEPHYR = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
VICUNA = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] + ' ' }}"
    "{% elif message['role'] == 'user' %}{{ 'USER: ' + message['content'] }}"
    "{% else %}{{ ' ASSISTANT: ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
GENERATION = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}<|im_start|>assistant\n"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}\n"
    "{% else %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GLM4 = (
    "[gMASK]<sop>{% for item in messages %}<|{{ item['role'] }}|>\n{{ item['content'] }}"
    "{% if item['role'] == 'assistant' %}{{ '<|endoftext|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LLAMA_PIECES = ("<unk>", "<s>", "</s>")

FAMILIES = (
    Family(name="SmolLM2", architecture="llama", template=CHATML, special=CHATML_TOKENS, eos="<|im_end|>", pad="<|im_end|>"),
    Family(
        name="SmolLM3 (template with generation marks, pad = eos)", architecture="smollm3", template=GENERATION,
        special=CHATML_TOKENS, eos="<|im_end|>", pad="<|im_end|>",
    ),
    Family(name="Qwen2.5", architecture="qwen2", template=QWEN25, special=CHATML_TOKENS, eos="<|im_end|>", pad="<|endoftext|>"),
    Family(
        name="Qwen2.5 base (eos and pad = <|endoftext|>)", architecture="qwen2", template=QWEN25, special=CHATML_TOKENS,
        eos="<|endoftext|>", pad="<|endoftext|>", end="<|im_end|>",
    ),
    Family(
        name="Qwen3", architecture="qwen3", template=QWEN3, special=(*CHATML_TOKENS, "<think>", "</think>"), eos="<|im_end|>",
        pad="<|endoftext|>", settings={"head_dim": 8},
    ),
    Family(
        name="Qwen3 base (model=qwen3_0_6b)", architecture="qwen3", template=QWEN3,
        special=(*CHATML_TOKENS, "<think>", "</think>"), eos="<|endoftext|>", pad="<|endoftext|>", end="<|im_end|>",
        settings={"head_dim": 8, "tie_word_embeddings": True},
    ),
    Family(
        name="Llama 2", architecture="llama", template=LLAMA2, special=LLAMA_PIECES, eos="</s>", bos="<s>", adds_bos=True,
        pieces=True,
    ),
    Family(
        name="Llama 3.2 Instruct", architecture="llama", template=LLAMA3, special=LLAMA3_TOKENS, eos="<|eot_id|>",
        bos="<|begin_of_text|>", adds_bos=True,
    ),
    Family(
        name="Llama 3 base (model=llama3_1b, llama3_8b)", architecture="llama", template=None, special=LLAMA3_TOKENS,
        eos="<|end_of_text|>", bos="<|begin_of_text|>", adds_bos=True, settings={"tie_word_embeddings": True},
    ),
    Family(
        name="Phi-3", architecture="phi3", template=PHI3, special=PHI3_TOKENS, eos="<|endoftext|>", bos="<s>",
        pad="<|endoftext|>", pieces=True, end="<|end|>", strips=True,
    ),
    Family(
        name="Phi-3 with eos <|end|>", architecture="phi3", template=PHI3, special=PHI3_TOKENS, eos="<|end|>", bos="<s>",
        pad="<|endoftext|>", pieces=True, strips=True,
    ),
    Family(
        name="Gemma 2", architecture="gemma2", template=GEMMA, special=("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
        eos="<eos>", bos="<bos>", pad="<pad>", adds_bos=True, pieces=True, end="<end_of_turn>", systems=False,
        settings={"head_dim": 8, "sliding_window": 12},
    ),
    Family(
        name="Gemma 3 (model=gemma3_1b)", architecture="gemma3_text", template=GEMMA,
        special=("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"), eos="<eos>", bos="<bos>", pad="<pad>",
        adds_bos=True, pieces=True, end="<end_of_turn>", systems=False, settings={"head_dim": 8, "sliding_window": 12},
    ),
    Family(
        name="Gemma base (no template)", architecture="gemma", template=None, special=("<pad>", "<eos>", "<bos>"), eos="<eos>",
        bos="<bos>", pad="<pad>", adds_bos=True, pieces=True, settings={"head_dim": 8},
    ),
    Family(
        name="Mistral", architecture="mistral", template=MISTRAL, special=LLAMA_PIECES, eos="</s>", bos="<s>", adds_bos=True,
        pieces=True, systems=False,
    ),
    Family(name="DeepSeek-R1 distilled", architecture="qwen2", template=R1, special=R1_TOKENS, eos=R1_TOKENS[1], bos=R1_TOKENS[0]),
    Family(name="Zephyr (a window of attention)", architecture="mistral", template=ZEPHYR, special=LLAMA_PIECES, eos="</s>", bos="<s>", pieces=True, settings={"sliding_window": 12}),
    Family(name="Vicuna", architecture="llama", template=VICUNA, special=LLAMA_PIECES, eos="</s>", bos="<s>", pieces=True),
    Family(
        name="GLM-4", architecture="glm", template=GLM4,
        special=("<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>"), eos="<|endoftext|>",
        pad="<|endoftext|>", settings={"head_dim": 8},
    ),
    Family(
        name="GPT-2 (no template, no padding token)", architecture="gpt2", template=None, special=("<|endoftext|>",),
        eos="<|endoftext|>", bos="<|endoftext|>", settings={"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, **NO_DROPOUT},
    ),
    Family(
        name="Pythia (no template)", architecture="gpt_neox", template=None, special=("<|endoftext|>",), eos="<|endoftext|>",
        bos="<|endoftext|>",
    ),
    Family(
        name="OLMo 2", architecture="olmo2", template=ZEPHYR, special=("<|endoftext|>", "<|pad|>"), eos="<|endoftext|>",
        pad="<|pad|>",
    ),
    Family(name="Granite 3", architecture="granite", template=CHATML, special=CHATML_TOKENS, eos="<|im_end|>",
           settings={"logits_scaling": 0.5, "residual_multiplier": 0.9}),
    Family(name="Cohere", architecture="cohere", template=CHATML, special=CHATML_TOKENS, eos="<|im_end|>",
           settings={"logit_scale": 2.0}),
    Family(name="Phi-2 (output layer with a bias)", architecture="phi", template=None, special=("<|endoftext|>",), eos="<|endoftext|>"),
    Family(name="Falcon", architecture="falcon", template=CHATML, special=CHATML_TOKENS, eos="<|im_end|>",
           settings={"num_kv_heads": 2}),
    Family(name="BLOOM (ALiBi)", architecture="bloom", template=None, special=LLAMA_PIECES, eos="</s>",
           settings={"n_layer": 2, "n_head": 4}),
    Family(name="MPT (ALiBi)", architecture="mpt", template=CHATML, special=CHATML_TOKENS, eos="<|im_end|>",
           settings={"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 256}),
    Family(name="OPT (positions from the mask)", architecture="opt", template=None, special=LLAMA_PIECES, eos="</s>",
           settings={"ffn_dim": 64, "word_embed_proj_dim": 32}),
    Family(name="openai-gpt (no cache)", architecture="openai-gpt", template=CHATML, special=CHATML_TOKENS, eos="<|im_end|>",
           settings={"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, **NO_DROPOUT}),
    Family(name="Mamba", architecture="mamba", template=CHATML, special=CHATML_TOKENS, eos="<|im_end|>",
           settings={"state_size": 8, "expand": 2}, adapters=False),
    Family(name="LFM2 (convolutions)", architecture="lfm2", template=CHATML, special=CHATML_TOKENS, eos="<|im_end|>",
           settings={"layer_types": ["conv", "full_attention"]}),
    Family(name="RecurrentGemma", architecture="recurrent_gemma", template=CHATML, special=CHATML_TOKENS, eos="<|im_end|>",
           settings={"lru_width": 32, "num_hidden_layers": 3, "attention_window_size": 64}),
)  # fmt: skip


def tokenizer_of(family: Family) -> PreTrainedTokenizerFast:
    """A tokenizer of the family's shape, trained on the packaged seeds."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=family.pieces))
    alphabet = [] if family.pieces else pre_tokenizers.ByteLevel.alphabet()
    if family.pieces:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)] if family.pieces else []
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY + len(bytes_), special_tokens=[*family.special, *bytes_], initial_alphabet=alphabet,
        show_progress=False,
    )  # fmt: skip
    tokenizer.train([str(DATA / "minilima_175.jsonl")], trainer)
    if family.strips:
        tokenizer.add_special_tokens([AddedToken(token, rstrip=True, special=True) for token in family.special[4:]])
    if family.adds_bos and family.bos:
        number = tokenizer.token_to_id(family.bos)
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", pair=f"{family.bos} $A {family.bos} $B", special_tokens=[(family.bos, number)]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=family.eos, bos_token=family.bos, pad_token=family.pad,
        unk_token="<unk>" if "<unk>" in family.special else None, clean_up_tokenization_spaces=False,
    )  # fmt: skip
    made.chat_template = family.template
    return made


def build(family: Family, folder: Path) -> Path:
    """Writes the family's tiny model into a folder, as its makers would have published it."""
    tokenizer = tokenizer_of(family)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = AutoConfig.for_model(family.architecture, **{**SMALL, **family.settings})
    config.eos_token_id = tokenizer.eos_token_id
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder)
    return folder


def named(name: str) -> Family:
    return next(family for family in FAMILIES if family.name.startswith(name))


Builder = Callable[[Family], Path]
