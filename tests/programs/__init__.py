"""Programs as users write them; tests run them in processes of their own."""
