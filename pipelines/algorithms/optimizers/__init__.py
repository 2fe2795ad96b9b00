"""Optimizers that no library has. A new one is one new file here.

    optimizer: {class: frugal, density: 0.25}

The word is the file's name, the class its CamelCase, a `torch.optim.Optimizer` whose keyword arguments are the keys in
YAML: `__init__` checks them and raises ValueError, which a plan tells. `lr` and `weight_decay` are those of `train`.
What else there is to say of an optimizer stands in its class:

    needs_whole     what it does that needs whole weights, as the end of a sentence: it is refused under FSDP and ZeRO
    of_one_point    why each rollout has to be learned from in one step, as the end of a sentence
    of_one_loss     why critics cannot be learned beside the policy, as the end of a sentence
    small           what a shrunk run changes in its keys
    numbers_kept    a static method of the keys: how many numbers it keeps of each weight
    require_room    a static method of the number of weights and the keys: raises ValueError where it keeps too much
    grouped         a static method: the trainer's groups of parameters anew, from these and the parameters' names

Of a class without them, and of those of libraries, stepping.py looks at what it does. No other file knows it by name.
"""
