//! A stand-in for `libnvidia-ml.so.1`, whose GPUs come from a file.
