package validator

import "bytes"

// eventData returns the data of an event: that of its lines, joined by LF. HTML
// standard, section 9.2.6.
func eventData(event []byte) []byte {
	var data [][]byte
	for line := range eventLines(event) {
		if value, ok := dataLine(line); ok {
			data = append(data, value)
		}
	}
	return bytes.Join(data, []byte("\n"))
}

// withEventData returns the event with other data; id, name and comments stay
// as they are.
func withEventData(event, data []byte) []byte {
	var out []byte
	written := false
	for line := range eventLines(event) {
		_, isData := dataLine(line)
		switch {
		case !isData:
			out = append(out, line...)
		case !written:
			written = true
			for part := range bytes.SplitSeq(data, []byte("\n")) {
				out = append(append(append(out, "data: "...), part...), '\n')
			}
		}
	}
	return out
}

// eventLines yields the lines of an event with what ends them.
func eventLines(event []byte) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(event) > 0 {
			end := bytes.IndexAny(event, "\r\n") + 1
			if end == 0 {
				end = len(event)
			} else if event[end-1] == '\r' && end < len(event) && event[end] == '\n' {
				end++
			}
			if !yield(event[:end]) {
				return
			}
			event = event[end:]
		}
	}
}

// dataLine returns the value of a line of the field data. The first line of a
// stream may have a byte order mark.
func dataLine(line []byte) ([]byte, bool) {
	line = bytes.TrimRight(bytes.TrimPrefix(line, []byte("\ufeff")), "\r\n")
	name, value, _ := bytes.Cut(line, []byte(":"))
	return bytes.TrimPrefix(value, []byte(" ")), string(name) == "data"
}
