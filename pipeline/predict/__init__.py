"""What trained models predict: clean, under the one-step attack, under DeepFool; Figure 3's trainings."""
