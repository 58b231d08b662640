"""The Dagster layer, the only folder that imports dagster: partitions, resources, assets, checks, automation.

An asset body loads, makes one domain call and returns with metadata. What a number means is decided in the domain
rooms; when it is made, and what a person sees of it, is decided here.
"""
