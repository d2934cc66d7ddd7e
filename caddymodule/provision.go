package caddymodule

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-scope/caddy-scope/issuer"
)

// placeholder is one of Caddy's placeholders inside a value.
var placeholder = regexp.MustCompile(`\{([^{}]+)\}`)

// resolve replaces the global placeholders of a setting. The error names the
// word and what to set, never what the value is: it may be a secret.
func resolve(word, value string) (string, error) {
	repl := caddy.NewReplacer()
	for _, match := range placeholder.FindAllStringSubmatch(value, -1) {
		name := match[1]
		if strings.HasPrefix(strings.TrimSpace(name), `"`) { // a JWK, not a placeholder
			return value, nil
		}
		got, known := repl.GetString(name)
		variable, isVariable := strings.CutPrefix(name, "env.")
		file, isFile := strings.CutPrefix(name, "file.")
		switch {
		case known && got != "":
		case isVariable:
			return "", fmt.Errorf("%s: {%s} is empty: set the environment variable %s", word, name, variable)
		case isFile:
			return "", fmt.Errorf("%s: {%s} is empty: the file %s is not there, not readable or empty", word, name, file)
		default:
			return "", fmt.Errorf("%s: {%s} is not a placeholder that exists when the configuration is loaded, such as {env.NAME} or {file.PATH}", word, name)
		}
	}
	resolved, err := repl.ReplaceOrErr(value, true, true)
	if err != nil {
		return "", fmt.Errorf("%s: a placeholder cannot be resolved", word)
	}
	if resolved == "" {
		return "", fmt.Errorf("%s is empty", word)
	}
	return resolved, nil
}

func resolveAll(word string, values []string) ([]string, error) {
	resolved := make([]string, 0, len(values))
	for _, value := range values {
		v, err := resolve(word, value)
		if err != nil {
			return nil, err
		}
		resolved = append(resolved, v)
	}
	return resolved, nil
}

// database is PostgresSettings with placeholders resolved and defaults filled.
type database struct {
	dsn, migrateDSN string
	embedded        bool
	dataDir         string
	schema          string
	pooled          bool
	adoptFor        string
}

func (a *App) provisionPostgres() error {
	d, err := a.resolvePostgres()
	if err != nil {
		return a.at("postgres", 0, err)
	}
	a.database = d
	return nil
}

func (a *App) resolvePostgres() (d database, err error) {
	s := a.Postgres
	switch {
	case s == nil || (s.DSN == "" && !s.Embedded):
		return d, errors.New("postgres is missing: postgres DSN, or postgres embedded")
	case s.Embedded && (s.DSN != "" || s.MigrateDSN != "" || s.Pooled):
		return d, errors.New("postgres: embedded contradicts dsn, migrate_dsn and pooled")
	case !s.Embedded && s.DataDir != "":
		return d, errors.New("postgres: data_dir is for embedded only")
	}
	d = database{embedded: s.Embedded, schema: s.Schema, pooled: s.Pooled, adoptFor: s.AdoptFor}
	if d.schema == "" {
		d.schema = "public"
	}
	if s.DSN != "" {
		if d.dsn, err = resolve("postgres", s.DSN); err != nil {
			return d, err
		}
	}
	if d.migrateDSN = d.dsn; s.MigrateDSN != "" {
		if d.migrateDSN, err = resolve("migrate_dsn", s.MigrateDSN); err != nil {
			return d, err
		}
	}
	if d.embedded {
		if d.dataDir = filepath.Join(caddy.AppDataDir(), "oauth-postgres"); s.DataDir != "" {
			if d.dataDir, err = resolve("postgres embedded", s.DataDir); err != nil {
				return d, err
			}
		}
		if d.dataDir, err = filepath.Abs(d.dataDir); err != nil {
			return d, fmt.Errorf("postgres embedded: %w", err)
		}
	}
	if d.adoptFor != "" {
		if c := a.clients[d.adoptFor]; c == nil || !c.Confidential() {
			return d, fmt.Errorf("postgres: adopt_for %q is not a client with a secret", d.adoptFor)
		}
	}
	return d, nil
}

func (a *App) provisionSecrets() error {
	if len(a.Secrets) == 0 {
		return nil
	}
	secrets := make([][]byte, len(a.Secrets))
	for i, setting := range a.Secrets {
		text, err := resolve("secret", setting)
		if err != nil {
			return a.at("secret", i, err)
		}
		secrets[i] = []byte(text)
		if _, err := issuer.NewRootSecrets(secrets[i]); err != nil { // alone, to name the line
			return a.at("secret", i, fmt.Errorf("secret: %w", err))
		}
	}
	var err error
	if a.secrets, err = issuer.NewRootSecrets(secrets[0], secrets[1:]...); err != nil {
		return a.at("secret", 0, fmt.Errorf("secret: %w", err))
	}
	return nil
}

func (a *App) provisionSigningKeys() error {
	if len(a.SigningKeys) > 0 && a.KeyRotationInterval != 0 {
		return a.at("key_rotation_interval", 0, errors.New("key_rotation_interval contradicts signing_key: only self-made keys are rotated"))
	}
	for i, setting := range a.SigningKeys {
		text, err := resolve("signing_key", setting)
		if err != nil {
			return a.at("signing_key", i, err)
		}
		content, err := keyText(text)
		if err != nil {
			return a.at("signing_key", i, fmt.Errorf("signing_key: %w", err))
		}
		key, err := issuer.ParseSigningKey(content)
		if err != nil {
			return a.at("signing_key", i, fmt.Errorf("signing_key: %w", err))
		}
		a.keys = append(a.keys, key)
	}
	return nil
}

// keyText returns the key itself: text, or the file that text names.
func keyText(text string) ([]byte, error) {
	const longestPath = 1024
	if len(text) > longestPath || strings.ContainsAny(text, "\n{") {
		return []byte(text), nil
	}
	if info, err := os.Stat(text); err == nil && info.Mode().IsRegular() {
		return os.ReadFile(text)
	}
	switch filepath.Ext(text) { // no base64 has such an end
	case ".pem", ".key", ".json", ".jwk":
		return nil, fmt.Errorf("the file %s is not there", text)
	}
	return []byte(text), nil
}
