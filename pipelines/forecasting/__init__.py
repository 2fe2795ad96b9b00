"""The forecast of a step, before it is paid for: its peak of memory, its place on disk, its tokens and its time.

work.py            what a stage says of itself: models in memory, texts that go through them, updates, what it leaves
passes.py          texts that go through a model, and answers that it draws
architectures.py   the sizes of a model, from its configuration, without weights
rows.py            how many rows a dataset has, and how long their texts are
trainers.py        the work of a training, by upstream's class of its arguments
known.py           what is known of a step before it runs
setting.py         how a step lies on a machine: ranks, batch, engine
memory.py          the peak of memory of a rank
amounts.py         what takes time, in units that a machine has a price for
disk.py            what a step writes
machines.py        what a machine has, and what it takes for each amount: measured, or published
forecast.py        all of it together
cures.py           the cheapest change by which a step fits
table.py           the forecast as text
"""
