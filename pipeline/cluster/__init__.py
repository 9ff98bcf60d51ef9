"""One batch on many machines: Ray places and restarts the work, the ledger holds the truth.

`ClusterDriver` has the interface of an `Engine`, and the command drives it. Workers run the very same engine
over rows that a coordinator leases to them. This room knows the engine and all below it, and must not know
the command line. Ray is imported when a cluster is made, not before.
"""

from pipeline.cluster.messages import ClusterConfig

__all__ = ["ClusterConfig"]
