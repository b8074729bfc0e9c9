"""The recipe of `freehold-nano`: generator, tokenizer, model, training, export, report.

Read `run.py` first; it names the steps in order.
"""
