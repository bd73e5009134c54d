"""Selection of training images from a user's folder of unlabelled images, by scores of the teacher."""
