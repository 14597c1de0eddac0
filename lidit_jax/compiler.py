"""What XLA is told, per platform, each with its reason. Nothing else in the project sets an option of it."""

# Of a training step. The gains are in docs/performance.md.
OPTIONS = {
    "cpu": {
        # This pass takes optimization barriers out before fusion, which then computes a residual stream
        # anew in each of its readers.
        "xla_disable_hlo_passes": "cse_barrier_expander",
        # Matrix products by Eigen, which is faster than the library that is the default for them;
        # sums by that library, since Eigen's loops over them use one number at a time.
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
    },
}


def options(platform: str) -> dict[str, str]:
    """Returns `jax.jit`'s compiler_options for programs of `platform` (a device's `.platform`)."""
    return OPTIONS.get(platform, {})
