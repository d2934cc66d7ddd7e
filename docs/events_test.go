package docs

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/issuer"
)

var (
	// eventInsert begins a statement that writes events, up to its columns.
	eventInsert = regexp.MustCompile(`INTO \{\{?s(?:chema\}\})?\}?\.?gpt_oauth_events \(([a-z_, ]+)\)`)
	eventName   = regexp.MustCompile(`'?"?gpt\.oauth\.([a-z_]+)`)
	eventEnd    = regexp.MustCompile("FROM [a-z]+|`[,)]|\\);")
	// eventMember is a name in jsonb_build_object, or in JSON.
	eventMember = regexp.MustCompile(`'([a-z_]+)', |"([a-z_]+)":`)
	// eventRow is | types | when | columns | metadata | of events.md.
	eventRow = regexp.MustCompile("(?m)^\\| (`[a-z_]+`(?:, `[a-z_]+`)*) \\| (.+) \\| ([a-z: ]+) \\| ?(.*?) ?\\|$")
	// logRow is | message | fields | of events.md.
	logRow  = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ?(.*) \\|$")
	auditOf = regexp.MustCompile(`\.audit\(r, "([^"]+)"(\+?)`)
	quoted  = regexp.MustCompile("`([a-z_]+)`")
)

// documentedEvent is a row of events.md.
type documentedEvent struct{ columns, metadata string }

func documentedEvents(t *testing.T) (events map[string]documentedEvent, text string) {
	t.Helper()
	content, err := os.ReadFile("events.md")
	if err != nil {
		t.Fatal(err)
	}
	events = make(map[string]documentedEvent)
	for _, r := range eventRow.FindAllStringSubmatch(string(content), -1) {
		for _, name := range quoted.FindAllStringSubmatch(r[1], -1) {
			events[name[1]] = documentedEvent{r[3], r[4]}
		}
	}
	return events, string(content)
}

func sources(t *testing.T, patterns ...string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files (%v)", pattern, len(files), err)
		}
		for _, file := range files {
			if text, err := os.ReadFile(file); err == nil && !strings.HasSuffix(file, "_test.go") {
				all[file] = string(text)
			}
		}
	}
	return all
}

// Every type of event that something writes is documented, with the columns and
// the members of metadata that it writes, and is one that a webhook's types may
// name; and no other is. EVS-01, EVS-18.
func TestEventsAreDocumentedAsTheyAreWritten(t *testing.T) {
	documented, _ := documentedEvents(t)
	letters := map[string]string{"user_id": "u", "client_id": "c", "session_id": "s", "ip_address": "o", "request_id": "o"}
	written := make(map[string]bool)
	for file, text := range sources(t, "../postgres/*.go", "../migrations/*.sql") {
		for _, name := range eventName.FindAllStringSubmatch(text, -1) {
			written[name[1]] = true
		}
		if strings.Contains(text, "factorEvent(") {
			for _, call := range regexp.MustCompile(`factorEvent\(ctx, tx, "([a-z_]+)"`).FindAllStringSubmatch(text, -1) {
				written[call[1]] = true
			}
		}
		for _, insert := range eventInsert.FindAllStringSubmatchIndex(text, -1) {
			statement := text[insert[1]:min(len(text), insert[1]+600)]
			if end := eventEnd.FindStringIndex(statement); end != nil {
				statement = statement[:end[0]]
			}
			for _, name := range eventName.FindAllStringSubmatch(statement, -1) {
				event := documented[name[1]]
				for column := range strings.SplitSeq(text[insert[2]:insert[3]], ", ") {
					if letter := letters[column]; letter != "" && !slices.Contains(strings.FieldsFunc(event.columns, func(r rune) bool { return r == ' ' || r == ':' }), letter) {
						t.Errorf("%s: %s has %s, which events.md does not say", file, name[1], column)
					}
				}
				for _, member := range eventMember.FindAllStringSubmatch(strings.ReplaceAll(statement, "'operator', ", ""), -1) { // a value
					if name := member[1] + member[2]; !strings.Contains(event.metadata, "`"+name+"`") {
						t.Errorf("%s: metadata has %q, which events.md does not say: %s", file, name, statement)
					}
				}
			}
		}
	}
	if len(written) < 30 {
		t.Errorf("%d types are written; the sources are not read right", len(written))
	}
	for name := range written {
		if _, ok := documented[name]; !ok {
			t.Errorf("events.md does not tell of %s", name)
		}
	}
	for name := range documented {
		if !written[name] {
			t.Errorf("events.md tells of %s, which nothing writes", name)
		}
	}
	if known, all := issuer.AuditEventTypes(), slices.Sorted(maps.Keys(written)); !slices.Equal(known, all) {
		t.Errorf("issuer.AuditEventTypes are\n%q, and written are\n%q", known, all)
	}
}

// Every audit line of the log is documented, and no other is. EVS-02.
func TestAuditLinesAreDocumentedAsTheyAreWritten(t *testing.T) {
	_, text := documentedEvents(t)
	_, text, _ = strings.Cut(text, "## The log")
	text, _, _ = strings.Cut(text, "\n## ")
	documented := make(map[string]string)
	for _, r := range logRow.FindAllStringSubmatch(text, -1) {
		documented[r[1]] = r[2]
	}
	written := make(map[string]bool)
	for file, text := range sources(t, "../issuer/*.go") {
		for _, call := range auditOf.FindAllStringSubmatchIndex(text, -1) {
			message := text[call[2]:call[3]]
			if call[4] != call[5] {
				message += "…"
			}
			written[message] = true
			line, _, _ := strings.Cut(text[call[0]:], "\n")
			for _, field := range regexp.MustCompile(`zap\.\w+\("(\w+)"`).FindAllStringSubmatch(line, -1) {
				if !strings.Contains(documented[message], "`"+field[1]+"`") {
					t.Errorf("%s: %q has %s, which events.md does not say", file, message, field[1])
				}
			}
		}
	}
	for message := range written {
		if _, ok := documented[message]; !ok {
			t.Errorf("events.md does not tell of the line %q", message)
		}
	}
	for message := range documented {
		if !written[message] {
			t.Errorf("events.md tells of the line %q, which nothing writes", message)
		}
	}
}
