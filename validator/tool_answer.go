package validator

import (
	"bytes"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// ToolFilter takes the tools that a token may not call out of an answer of an
// MCP server, as it is written: out of a JSON body, which is held until Close,
// and out of the events of a stream, each of which goes on when it is whole.
// Answers of other types pass untouched.
//
// What cannot be read (encoded, malformed, beyond 4 MiB) does not pass.
type ToolFilter struct {
	http.ResponseWriter
	may func(tool string) bool

	kind   answerKind
	status int
	buffer []byte // a JSON body, or the beginning of an event
	line   int    // where in buffer the last line of the event begins
	err    error  // what was not passed on
}

type answerKind int

const (
	undecidedAnswer answerKind = iota
	otherAnswer
	jsonAnswer
	eventAnswer
	refusedAnswer
)

// Why an answer of an MCP server does not pass.
var (
	errAnswerEncoded   = errors.New("the MCP server encodes its answer, although it was asked not to")
	errAnswerTooLarge  = errors.New("the MCP server's list of tools is beyond 4 MiB")
	errAnswerMalformed = errors.New("the MCP server's list of tools is no plain JSON")
)

// FilterTools returns a writer for the answer to the request, or nil where the
// answer may go to w as it is. The request must then ask for an answer that is
// not encoded, and Close must be called when the answer is complete.
func (d *Decision) FilterTools(w http.ResponseWriter) *ToolFilter {
	may := d.mayList()
	if may == nil {
		return nil
	}
	return &ToolFilter{ResponseWriter: w, may: may}
}

// Unwrap is for http.ResponseController.
func (f *ToolFilter) Unwrap() http.ResponseWriter { return f.ResponseWriter }

// WriteHeader finds out what kind of answer comes.
func (f *ToolFilter) WriteHeader(status int) {
	if status < http.StatusOK {
		f.ResponseWriter.WriteHeader(status)
		return
	}
	if f.kind != undecidedAnswer {
		return
	}
	f.status = status
	header := f.Header()
	kind, _, _ := mime.ParseMediaType(header.Get("Content-Type"))
	switch kind {
	case "application/json":
		f.kind = jsonAnswer
	case "text/event-stream":
		f.kind = eventAnswer
	default:
		f.kind = otherAnswer
		f.ResponseWriter.WriteHeader(status)
		return
	}
	if encoding := header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		f.refuse(errAnswerEncoded)
		return
	}
	header.Del("Content-Length")
	if f.kind == eventAnswer {
		f.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (f *ToolFilter) Write(b []byte) (int, error) {
	if f.kind == undecidedAnswer {
		f.WriteHeader(http.StatusOK)
	}
	switch f.kind {
	case otherAnswer:
		return f.ResponseWriter.Write(b)
	case refusedAnswer:
		return 0, f.err
	}
	f.buffer = append(f.buffer, b...)
	if f.kind == eventAnswer {
		if err := f.passEvents(); err != nil {
			f.err = err
			return 0, err
		}
	}
	if len(f.buffer) > maxMessage {
		f.refuse(errAnswerTooLarge)
		return 0, f.err
	}
	return len(b), nil
}

// FlushError sends what may go: whole events.
func (f *ToolFilter) FlushError() error {
	if f.kind == undecidedAnswer {
		f.WriteHeader(http.StatusOK)
	}
	if f.kind == jsonAnswer || f.kind == refusedAnswer {
		return nil
	}
	return http.NewResponseController(f.ResponseWriter).Flush()
}

// Close sends what was held. The error says what was not sent: a stream must
// then be cut off, any other answer is complete, and says 502.
func (f *ToolFilter) Close() error {
	switch f.kind {
	case jsonAnswer:
		body, err := f.filtered(f.buffer)
		if err != nil {
			f.refuse(err)
			return f.err
		}
		if len(body) > 0 {
			f.Header().Set("Content-Length", strconv.Itoa(len(body)))
		}
		f.ResponseWriter.WriteHeader(f.status)
		_, err = f.ResponseWriter.Write(body)
		return err
	case eventAnswer:
		if f.err == nil && len(f.buffer) > 0 { // never ended; some clients take it all the same
			f.err = f.passEvent(f.buffer)
		}
	}
	return f.err
}

// Streams reports whether the answer is a stream of events.
func (f *ToolFilter) Streams() bool { return f.kind == eventAnswer }

// refuse answers in place of the server, unless its stream has begun.
func (f *ToolFilter) refuse(err error) {
	f.err = err
	if f.kind == eventAnswer && len(f.buffer) > 0 {
		return
	}
	f.kind, f.buffer = refusedAnswer, nil
	f.Header().Del("Content-Encoding")
	WriteRefusal(f.ResponseWriter, new(http.Request), &Refusal{
		Status: http.StatusBadGateway, Code: oauth.CodeServerError, Description: "The list of tools cannot be read.",
	})
	_ = http.NewResponseController(f.ResponseWriter).Flush()
}

// filtered filters a message. One that cannot list tools is not even read.
func (f *ToolFilter) filtered(data []byte) ([]byte, error) {
	if !bytes.Contains(data, []byte(`"tools"`)) {
		return data, nil
	}
	filtered, err := filterTools(data, f.may)
	if err != nil {
		return nil, errAnswerMalformed
	}
	return filtered, nil
}

// passEvents passes on the events in buffer that are whole: those with an empty
// line after them. A line ends with CR LF, LF or CR; where a CR LF is torn
// apart, its LF makes an empty event of its own, which is none.
func (f *ToolFilter) passEvents() error {
	for {
		length := bytes.IndexAny(f.buffer[f.line:], "\r\n")
		if length < 0 {
			return nil
		}
		next := f.line + length + 1
		if f.buffer[next-1] == '\r' && next < len(f.buffer) && f.buffer[next] == '\n' {
			next++
		}
		if length > 0 {
			f.line = next
			continue
		}
		if err := f.passEvent(f.buffer[:next]); err != nil {
			return err
		}
		f.buffer, f.line = f.buffer[next:], 0
	}
}

// passEvent passes on one event, whose data is a message, or is not.
func (f *ToolFilter) passEvent(event []byte) error {
	data := eventData(event)
	filtered, err := f.filtered(data)
	switch {
	case err != nil:
		return err
	case !bytes.Equal(filtered, data):
		event = withEventData(event, filtered)
	}
	_, err = f.ResponseWriter.Write(event)
	return err
}
