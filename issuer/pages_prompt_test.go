package issuer

// pagePrompt is a prompt parameter.
func pagePrompt(values ...string) []string { return values }
