"""The DeepSpeed configuration, generated whole: every number is explicit, nothing is `auto`. Pure."""

from typing import Any

from minilima.config.choices import Offload


def deepspeed_config(
    *, stage: int, offload: Offload, share: int, world: int, max_grad_norm: float, bf16: bool, on_gpu: bool, compiled: bool
) -> dict[str, Any]:
    """ZeRO stage 0 to 3 with fp32 master weights and fp32 gradient accumulation.

    There is no `optimizer` block on purpose: DeepSpeed's own would decay norms and biases too, and has to be compiled.

    What is offloaded lies in the machine's memory, and torch's own AdamW steps on it there (DeepSpeed's has to be compiled).

    Args:
        share: examples of a step that each process takes.
        world: processes.
        compiled: whether blocks are. DeepSpeed's own linear layer would then be compiled again for every one of them, since it
            looks at each weight's number.
    """
    here: dict[str, Any] = {"device": "cpu", "pin_memory": on_gpu}
    offloaded: dict[str, Any] = {}
    if offload != Offload.none:
        offloaded["offload_optimizer"] = here
    if offload == Offload.all:
        offloaded["offload_param"] = here
    return {
        "train_micro_batch_size_per_gpu": share,
        "gradient_accumulation_steps": 1,
        "train_batch_size": share * world,
        "gradient_clipping": max_grad_norm,
        "bf16": {"enabled": bf16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": on_gpu,
            "contiguous_gradients": True,
            "reduce_bucket_size": 200_000_000,
            "allgather_bucket_size": 200_000_000,
            "stage3_prefetch_bucket_size": 250_000_000,
            "stage3_param_persistence_threshold": 100_000,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 300_000_000,  # a block of 8B is kept from its second computation to its gradient
            "sub_group_size": 200_000_000,  # whose gradients the optimizer copies at once
            "memory_efficient_linear": not compiled,
            "stage3_gather_16bit_weights_on_model_save": True,
            **offloaded,
        },
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }
