"""Public checkpoints in, diffusers folders out.

A family is a module with `names`, what it calls each parameter of a network of ours. `openai` and
`lucidrains` recognise a model by its weights, `folder` by the config.json beside them.
"""
