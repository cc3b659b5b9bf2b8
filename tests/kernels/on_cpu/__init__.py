"""Kernels in CUDA C++ compiled for the CPU with other functions for what only a GPU has, and run
there thread by thread (`machine.h`): results, races between threads, barriers that do not fit."""
