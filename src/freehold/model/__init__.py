"""What a model is: its checkpoint, config, tokenizer, and each architecture's forward over Ops.

Read `deepseek_v3.py` for a forward, `loading.py` for the way from a directory to a model.
"""
