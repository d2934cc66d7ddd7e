package caddymodule

import (
	"crypto/rand"
	"fmt"
	"slices"

	"github.com/caddyserver/caddy/v2"
)

// secretWords are the fields of the oauth app that hold secrets. What they are
// decides about no request, so that a rehearsal does without: where rules are
// tested, secrets have no business.
var secretWords = []string{"secret", "secrets", "client_secret", "initial_access_tokens", "signing_keys", "dsn", "migrate_dsn"}

// secrets puts stand-ins in the place of secrets whose placeholders hold nothing
// here.
func (s *standIns) secrets(settings any) {
	switch settings := settings.(type) {
	case []any:
		for _, element := range settings {
			s.secrets(element)
		}
	case map[string]any:
		for word, value := range settings {
			if !slices.Contains(secretWords, word) {
				s.secrets(value)
				continue
			}
			switch value := value.(type) {
			case string:
				settings[word] = s.secret(word, value)
			case []any:
				if settings[word] = s.secretList(word, value); len(settings[word].([]any)) == 0 {
					delete(settings, word)
				}
			}
		}
	}
}

func (s *standIns) secretList(word string, values []any) []any {
	standing := []any{}
	for _, value := range values {
		text, _ := value.(string)
		if missing(text) && word == "signing_keys" { // that of the rehearsal stands in
			s.missingSecret(text)
			continue
		}
		standing = append(standing, s.secret(word, text))
	}
	return standing
}

func (s *standIns) secret(word, value string) string {
	if !missing(value) {
		return value
	}
	s.missingSecret(value)
	if word == "dsn" || word == "migrate_dsn" {
		return "postgres://127.0.0.1:1/none"
	}
	return rand.Text() + rand.Text()
}

func (s *standIns) missingSecret(value string) {
	s.notes = append(s.notes, fmt.Sprintf("%s holds nothing here; a stand-in is used", value))
}

// missing reports whether a placeholder of the value holds nothing.
func missing(value string) bool {
	repl := caddy.NewReplacer()
	for _, match := range placeholder.FindAllStringSubmatch(value, -1) {
		if got, known := repl.GetString(match[1]); !known || got == "" {
			return true
		}
	}
	return false
}
