"""Jobs: what was asked for, on its way to being done, step by step, whoever crashes on the way."""
