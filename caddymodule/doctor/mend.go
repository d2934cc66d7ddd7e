package doctor

import "strings"

// inOption is what to write in the option oauth: in place of the line that has the
// word, if there is one.
func (s *Stage) inOption(word, lines string) string {
	return s.place(word) + ": " + lines
}

// inBlock is what to write in the block of the word, if there is one, and else
// with it.
func (s *Stage) inBlock(word, line string) string {
	if s.has(word) {
		return "in " + word + " " + s.place(word) + ": " + line
	}
	return s.inOption(word, word+" {\n\t"+line+"\n}")
}

func (s *Stage) has(word string) bool { return len(s.Places[word]) > 0 }

func (s *Stage) place(word string) string {
	switch {
	case s.has(word):
		return "at " + s.Places[word][0]
	case s.has("oauth"):
		return "in the option oauth at " + s.Places["oauth"][0]
	}
	return "in the option oauth"
}

// inClient is what to write about the client.
func (e *examination) inClient(line string) string {
	if e.client == nil { // it registered itself as it wants to be
		return e.stage.inOption("", "a client for the product, with "+line)
	}
	return strings.TrimSuffix("in the client "+e.client.ID+" at "+e.client.Source, " at ") + ": " + line
}
