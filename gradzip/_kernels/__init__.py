"""Where plain jnp is not enough, one a file, with the plain form beside it."""
