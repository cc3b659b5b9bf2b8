"""Reading weights from files: GGUF, Hugging Face folders, and the default model's download."""
