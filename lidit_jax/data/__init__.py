"""From caption sources to batches, in numpy, grain and array_record; no models.

sources   images and captions          filters   rules that drop an example
buckets   an image's size and crop     records   what is on disk, written and read
pipeline  records -> `Batch`, the same global batch whatever the number of hosts; what cannot be
          read is replaced
"""
