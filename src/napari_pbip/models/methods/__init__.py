"""The methods: networks that give class score maps, with their losses."""
