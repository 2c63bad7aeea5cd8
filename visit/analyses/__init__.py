"""What one pass, two passes or a set of prompts show, each as tables: the overview of a pass, heads and their memory,
two runs compared, norms, neurons, and the examination of a model (`doctor`).
"""
