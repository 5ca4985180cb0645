"""Few-step cross-resolution diffusion: teacher and distilled cascade side by side."""

import os

# Threads that wait without spinning, said before torch is imported and starts them. Beside one busy program a call of
# the bundled network takes 100 ms so and 280 to 1,400 ms with spinning threads; alone it is 72 ms (two AVX2 threads).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
