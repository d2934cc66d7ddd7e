// Package migrations holds the numbered SQL of the storage schema.
//
// NNNN_name.up.sql and .down.sql run in one transaction each, unless the first
// line is "-- no transaction". NNNN_name.adopt.up.sql and .adopt.down.sql stand
// in for them on a database of the replaced system. {{schema}} is the schema.
// A shipped file is history.
package migrations

import (
	"embed"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

//go:embed *.sql
var files embed.FS

// Migration is one numbered step of the schema.
type Migration struct {
	Version            int
	Name               string
	Up, Down           string
	AdoptUp, AdoptDown string // empty: Up and Down hold for adopted databases too
}

// NoTransaction marks SQL whose statements run one by one, outside any
// transaction. They must bear being run again from the start.
const NoTransaction = "-- no transaction"

// All returns the migrations in order; Version is the index plus one.
func All() ([]Migration, error) {
	names, err := fs.Glob(files, "*.sql")
	if err != nil {
		return nil, err
	}
	var all []Migration
	for _, file := range names { // sorted by Glob
		base, kind, _ := strings.Cut(strings.TrimSuffix(file, ".sql"), ".")
		number, name, _ := strings.Cut(base, "_")
		version, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("migration %s: no number: %w", file, err)
		}
		if version == len(all)+1 {
			all = append(all, Migration{Version: version, Name: name})
		}
		if version != len(all) || all[version-1].Name != name {
			return nil, fmt.Errorf("migration %s: out of sequence", file)
		}
		text, err := files.ReadFile(file)
		if err != nil {
			return nil, err
		}
		m := &all[version-1]
		switch kind {
		case "up":
			m.Up = string(text)
		case "down":
			m.Down = string(text)
		case "adopt.up":
			m.AdoptUp = string(text)
		case "adopt.down":
			m.AdoptDown = string(text)
		default:
			return nil, fmt.Errorf("migration %s: neither up nor down", file)
		}
	}
	return all, nil
}
