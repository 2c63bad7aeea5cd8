"""Long work over sets of prompts: `prompts` reads and fits a set, `job` takes it batch by batch, `worker` keeps it
alive.
"""
