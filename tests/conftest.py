"""Eight CPU devices for every test; the numbers below are set before JAX starts."""

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
