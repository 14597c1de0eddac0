"""From caption sources to batches, in numpy, grain and array_record; no models.

sources         images and captions           filters     rules that drop an example
buckets         an image's size and crop      judging     the verdict on one example
planning        every verdict -> a plan       plan        a plan on disk
plan_rows       its rows, while it is made    plan_texts  its captions and prompts
decoding        pictures decoded in order     records     reading and writing records
feature_codecs  how features are stored       dataset     a data set on disk, and how it is read
schedule        which bin a step draws from   overlap     pictures that two data sets share
pipeline        records -> `Batch`; the global batch does not depend on the number of hosts,
                and unreadable samples are replaced
"""
