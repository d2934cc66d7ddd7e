package caddymodule

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// word parses one line of a block; the cursor is on its first token.
type word struct {
	parse func(d *caddyfile.Dispenser) error
	many  bool // the word may stand more than once
}

// parseBlock reads the block that follows, if any. A line whose first token is
// not one of words, and a second line of a word that may stand once, are
// errors that name the line.
func parseBlock(d *caddyfile.Dispenser, words map[string]word) error {
	return parseBlockAt(d, words, nil)
}

// parseBlockAt is parseBlock that notes where each word stands.
func parseBlockAt(d *caddyfile.Dispenser, words map[string]word, at map[string][]string) error {
	seen := make(map[string]int)
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		name := d.Val()
		w, known := words[name]
		if !known {
			return d.Errf("unrecognized word %q; one of %s is expected", name, wordList(words))
		}
		if line, again := seen[name]; again && !w.many {
			return d.Errf("%s is already set, at line %d", name, line)
		}
		seen[name] = d.Line()
		if at != nil {
			at[name] = append(at[name], source(d))
		}
		if err := w.parse(d); err != nil {
			return err
		}
		if d.NextArg() {
			return d.Errf("%s: unexpected %q", name, d.Val())
		}
	}
	return nil
}

func wordList(words map[string]word) string {
	names := make([]string, 0, len(words))
	for name := range words {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// once and many make words from parsers.
func once(parse func(d *caddyfile.Dispenser) error) word { return word{parse: parse} }
func many(parse func(d *caddyfile.Dispenser) error) word { return word{parse: parse, many: true} }

// text is a word with exactly one value.
func text(target *string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) (err error) {
		*target, err = value(d)
		return err
	}
}

// appendText is a word with exactly one value, which joins the list.
func appendText(target *[]string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		v, err := value(d)
		if err != nil {
			return err
		}
		if slices.Contains(*target, v) { // perhaps a secret: the error must not hold it
			return d.Errf("%s: the same value stands here twice", name)
		}
		*target = append(*target, v)
		return nil
	}
}

// texts is a word with one or more values.
func texts(target *[]string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		for d.NextArg() {
			switch v := d.Val(); {
			case v == "":
				return d.Errf("%s: a value is empty (an unset {$VARIABLE} leaves none)", name)
			case slices.Contains(*target, v):
				return d.Errf("%s: %q stands here twice", name, v)
			default:
				*target = append(*target, v)
			}
		}
		if len(*target) == 0 {
			return d.Errf("%s: a value is missing", name)
		}
		return nil
	}
}

// value returns the value after the word at the cursor.
func value(d *caddyfile.Dispenser) (string, error) {
	name := d.Val()
	if !d.NextArg() || d.Val() == "" {
		return "", d.Errf("%s: a value is missing (an unset {$VARIABLE} leaves none)", name)
	}
	return d.Val(), nil
}

// flag is a word without a value.
func flag(target *bool) func(*caddyfile.Dispenser) error {
	return func(*caddyfile.Dispenser) error {
		*target = true
		return nil
	}
}

// oneOf is a word whose value is one of choices.
func oneOf(target *string, choices ...string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		v, err := value(d)
		if err != nil {
			return err
		}
		if !slices.Contains(choices, v) {
			return d.Errf("%s: %q is not one of %s", name, v, strings.Join(choices, ", "))
		}
		*target = v
		return nil
	}
}

// count is a word whose value is a whole number, at least 1.
func count(target *int) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		v, err := value(d)
		if err != nil {
			return err
		}
		if *target, err = strconv.Atoi(v); err != nil || *target < 1 {
			return d.Errf("%s: %q is not a whole number above 0", name, v)
		}
		return nil
	}
}

// period is a word whose value is a duration above zero, such as 90s, 15m, 12h
// or 30d.
func period(target *caddy.Duration) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) (err error) {
		*target, err = duration(d, 1)
		return err
	}
}

// periodOf is period for a setting that may be absent, and zero if min is 0.
func periodOf(target **caddy.Duration, min caddy.Duration) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		v, err := duration(d, min)
		if err != nil {
			return err
		}
		*target = &v
		return nil
	}
}

func duration(d *caddyfile.Dispenser, min caddy.Duration) (caddy.Duration, error) {
	name := d.Val()
	v, err := value(d)
	if err != nil {
		return 0, err
	}
	parsed, err := caddy.ParseDuration(v)
	if err != nil {
		return 0, d.Errf("%s: %q is not a duration such as 90s, 15m, 12h or 30d", name, v)
	}
	if caddy.Duration(parsed) < min {
		return 0, d.Errf("%s: %s is too short", name, v)
	}
	return caddy.Duration(parsed), nil
}

// source returns the place of the token at the cursor, such as "Caddyfile:12".
func source(d *caddyfile.Dispenser) string {
	return fmt.Sprintf("%s:%d", d.File(), d.Line())
}
