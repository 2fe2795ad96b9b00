"""The audit: every row of a dataset is read before a training is paid for, and what is wrong has a consequence.

classes.py        what can be wrong with a row, and whether it is refused, dropped or warned about
facts.py          what was found: the rows of each class, kept by the content of the files
conversations.py  a column of messages as flat arrays
rows.py           roles, contents and answers, batch by batch, without a tokenizer
pairs.py          two answers and their prompt
tokens.py         lengths and ends of what is learned, tokenised once
sources.py        the datasets of a mixture, and what their rows depend on
checking.py       a data block and its consequences: an error, fewer rows, counts
"""
