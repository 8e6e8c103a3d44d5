"""Work on several processes or machines, by dask.distributed.

A job stays a generator of events in the process that was asked for it. What takes long in it is given to workers: parts
of a slide or of a bank as functions whose results come back (:meth:`Cluster.results`), and whole jobs, such as the runs
of a comparison, whose events come back (:func:`on_workers`). Both are given out only as fast as workers take them.

A worker that is lost does not stop a job: the scheduler gives its work to another one. A job of which a part was done
by then is resumed there. If the scheduler is lost, the job ends with an error, and resuming it continues from what is
on disk.

Workers see the same files under the same paths. What they send is pickled by dask, so a scheduler should be open to
trusted machines only; nothing that is pickled is ever read from disk.
"""
