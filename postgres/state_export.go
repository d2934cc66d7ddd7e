package postgres

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
)

// ExportState writes all state of the schema as it is at one moment: see
// stateFormat. Nothing that is sealed is opened, and no secret is in it that the
// database does not hold. It keeps no more than a row in memory. A file whose
// export failed is refused by ImportState.
func ExportState(ctx context.Context, w io.Writer, cfg StateConfig) error {
	status, err := MigrationStatus(ctx, MigrateConfig{DSN: cfg.DSN, Schema: cfg.Schema})
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	switch status.Version {
	case status.Latest:
	case 0:
		return errors.New("export: there is nothing in this schema, or the role of the DSN does not own the tables, and row level security hides them from it: name the owner with migrate_dsn")
	default:
		return fmt.Errorf("export: the schema is at version %d, and this binary writes version %d: bring it up to date with caddy oauth migrate, or export with the binary that it is used with", status.Version, status.Latest)
	}
	conn, err := connectState(ctx, cfg)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.begin(ctx, oneSnapshot, func(tx pgx.Tx) error {
		out := newStateWriter(w, cfg.Told)
		header := StateHeader{Format: stateFormat, Version: stateVersion, SchemaVersion: status.Version, Issuer: cfg.Issuer}
		if err := conn.describe(ctx, tx, &header); err != nil {
			return err
		}
		if err := out.line(header); err != nil {
			return err
		}
		for _, table := range stateTables {
			if columns := header.Tables[table.name]; columns != nil {
				if err := conn.exportTable(ctx, tx, out, table.name, columns); err != nil {
					return fmt.Errorf("%s: %w", table.name, err)
				}
			}
		}
		return out.end()
	})
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	return nil
}

// describe fills in what the database knows of the header.
func (c *stateConn) describe(ctx context.Context, tx pgx.Tx, header *StateHeader) (err error) {
	if header.Tables, err = c.columns(ctx, tx); err != nil {
		return err
	}
	err = tx.QueryRow(ctx, `SELECT value FROM `+c.table("gpt_settings")+` WHERE key = 'root_secret_fingerprint'`).Scan(&header.Fingerprint)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) { // no server was ever started on it
		return err
	}
	return tx.QueryRow(ctx, `SELECT now()`).Scan(&header.ExportedAt)
}

func (c *stateConn) exportTable(ctx context.Context, tx pgx.Tx, out *stateWriter, name string, columns []string) error {
	rows, err := tx.Query(ctx, `SELECT row_to_json(r)::text FROM (SELECT `+strings.Join(quoteAll(columns), ", ")+` FROM `+c.table(name)+`) r`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := out.row(name, rows.RawValues()[0]); err != nil {
			return err
		}
	}
	return rows.Err()
}

// stateWriter writes the lines of a file and sums them up.
type stateWriter struct {
	out     *bufio.Writer
	sum     hashWriter
	trailer stateTrailer
	rows    int
	told    func(int)
}

// hashWriter writes and digests.
type hashWriter struct {
	io.Writer
	sum interface {
		io.Writer
		Sum([]byte) []byte
	}
}

// Write implements io.Writer.
func (h hashWriter) Write(p []byte) (int, error) {
	_, _ = h.sum.Write(p) // never fails
	return h.Writer.Write(p)
}

func newStateWriter(w io.Writer, told func(int)) *stateWriter {
	s := &stateWriter{sum: hashWriter{w, sha256.New()}, told: told}
	s.out = bufio.NewWriterSize(s.sum, 64<<10)
	s.trailer.End.Rows = make(map[string]int64)
	return s
}

func (s *stateWriter) line(what any) error {
	text, err := json.Marshal(what)
	if err != nil {
		return err
	}
	_, _ = s.out.Write(text)
	return s.out.WriteByte('\n') // the first error of any
}

func (s *stateWriter) row(table string, row []byte) error {
	if len(row) > maxStateLine-len(table)-16 {
		return fmt.Errorf("a row of %d bytes is too large for a line", len(row))
	}
	fmt.Fprintf(s.out, `{"%s":%s}`, table, row)
	if err := s.out.WriteByte('\n'); err != nil {
		return err
	}
	s.trailer.End.Rows[table]++
	if s.rows++; s.told != nil {
		s.told(s.rows)
	}
	return nil
}

// end writes the trailer, which is about all before it.
func (s *stateWriter) end() error {
	if err := s.out.Flush(); err != nil {
		return err
	}
	s.trailer.End.SHA256 = hex.EncodeToString(s.sum.sum.Sum(nil))
	if err := s.line(s.trailer); err != nil {
		return err
	}
	return s.out.Flush()
}
