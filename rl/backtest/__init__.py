"""What a trained model would have done on bars it never saw, beside what doing nothing would have done."""
