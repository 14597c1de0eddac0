"""From caption sources to batches, in numpy, grain and array_record; no models.

sources   images and captions          filters   rules that drop an example
buckets   an image's size and crop     records   reading and writing what is on disk
pipeline  records -> `Batch`; the global batch does not depend on the number of hosts, and
          unreadable samples are replaced
"""
