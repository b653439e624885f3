"""The same kernel under Apache Spark (`[kernel] engine = "spark"`): docs/spark.md.

A source's rows become entries where they are read; subtrees of the tree, parts of the sketch and the join with the ledger are worked out there
too, and only what differs comes to the driver. Nothing outside this package knows pyspark, and nothing in it is imported without the setting.
"""
