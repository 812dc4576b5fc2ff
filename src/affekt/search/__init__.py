"""EmotionNAS's architecture search: recipes, search strategies, folders and reports. Its networks are in `affekt.models`."""
