"""The chapter's experiments on weight initial values, run on pynn's kernels: what ``pynn study``
does.

`experiments` computes, `claims` judges, `figures` and `report` show; `data` brings what the
networks learn from. Only the figures, the digits, MNIST and the progress bar need the packages of
the ``study`` extra, and only when they are used.
"""
