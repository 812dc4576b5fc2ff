"""All of EmotionNAS's architecture search that is not a model."""
