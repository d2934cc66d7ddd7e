package postgres

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// importRows and importBytes bound what is kept in memory, and what one
	// statement inserts.
	importRows, importBytes = 1000, 1 << 20
	// importWait bounds the wait for tables that somebody else holds.
	importWait = "5s"
)

// ImportState reads what ExportState wrote into a schema that holds nothing; the
// tables are made if they are not there. It is one transaction: whatever goes
// wrong, and when ctx ends, the schema is as empty as before. Sessions, refresh
// tokens, codes and logins go on, and what has ended stays ended.
// ErrStateFile, ErrStateNotEmpty, ErrStateSecret.
func ImportState(ctx context.Context, r io.Reader, cfg StateConfig) (header StateHeader, rows int, err error) {
	in := newStateReader(r)
	if header, err = in.header(); err == nil {
		err = header.check(cfg.Fingerprints)
	}
	if err == nil {
		err = prepareSchema(ctx, cfg, header)
	}
	if err != nil {
		return header, 0, fmt.Errorf("import: %w", err)
	}
	conn, err := connectState(ctx, cfg)
	if err != nil {
		return header, 0, fmt.Errorf("import: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.begin(ctx, pgx.TxOptions{}, func(tx pgx.Tx) error {
		if err := conn.takeEmpty(ctx, tx, header); err != nil {
			return err
		}
		if rows, err = conn.importRows(ctx, tx, in, header, cfg.Told); err != nil {
			return err
		}
		return conn.analyze(ctx, tx, header)
	})
	if err != nil {
		return header, 0, fmt.Errorf("import: %w", err)
	}
	return header, rows, nil
}

// check refuses a file that cannot be understood here.
func (h *StateHeader) check(fingerprints []string) error {
	switch {
	case h.Version != stateVersion:
		return fmt.Errorf("%w: its format is version %d, and this binary reads version %d; use the binary that wrote it", ErrStateFile, h.Version, stateVersion)
	case h.Fingerprint == "" || slices.Contains(fingerprints, h.Fingerprint):
		return nil
	case len(fingerprints) == 0:
		return fmt.Errorf("%w (fingerprint %s), and none is configured: set `secret` to that one", ErrStateSecret, h.Fingerprint)
	}
	return fmt.Errorf("%w (fingerprint %s; here it is %s): set `secret` to that one, or write it after the new one: `secret NEW OLD`. "+
		"Where the word was not used, the secret is in Caddy's storage of the old server, as oauth/root_secret", ErrStateSecret, h.Fingerprint, fingerprints[0])
}

// nobodysClient is to whom the sessions of an adopted database without any
// sessions belong. It does not stay.
const nobodysClient = "(import)"

// prepareSchema makes the tables: for the state of an adopted database as
// adoption makes them.
func prepareSchema(ctx context.Context, cfg StateConfig, header StateHeader) error {
	migration := MigrateConfig{DSN: cfg.DSN, Schema: cfg.Schema}
	status, err := MigrationStatus(ctx, migration)
	switch {
	case err != nil:
		return err
	case header.SchemaVersion != status.Latest:
		return fmt.Errorf("%w: its tables are version %d, and those of this binary are version %d; export again with this binary, after caddy oauth migrate, or import with the one that wrote it",
			ErrStateFile, header.SchemaVersion, status.Latest)
	case status.Adoptable && status.Version == 0 && header.Tables[adoptedTokens] == nil:
		return fmt.Errorf("%w: it holds the tables of another OAuth system; name an empty database or schema", ErrStateNotEmpty)
	}
	if header.Tables[adoptedTokens] != nil {
		migration.AdoptFor = nobodysClient
		if err := createAdoptable(ctx, migration); err != nil {
			return err
		}
	}
	return Migrate(ctx, migration)
}

// takeEmpty locks the tables against everybody else, and makes sure that they are
// empty and have what the file has.
func (c *stateConn) takeEmpty(ctx context.Context, tx pgx.Tx, header StateHeader) error {
	here, err := c.columns(ctx, tx)
	if err != nil {
		return err
	}
	for table, columns := range header.Tables {
		if here[table] == nil {
			return fmt.Errorf("%w: it is of an adopted database (%s), and this schema was made without; name an empty database or schema without tables", ErrStateFile, table)
		}
		for _, column := range columns {
			if !slices.Contains(here[table], column) {
				return fmt.Errorf("%w: it has a column %s.%s, which is not this program's; copy the database with pg_dump, or drop the column there", ErrStateFile, table, column)
			}
		}
	}
	if _, err := tx.Exec(ctx, `SELECT set_config('lock_timeout', $1, true)`, importWait); err != nil {
		return err
	}
	for _, table := range stateTables {
		if here[table.name] == nil {
			continue
		}
		if _, err := tx.Exec(ctx, `LOCK TABLE `+c.table(table.name)+` IN SHARE ROW EXCLUSIVE MODE`); hasCode(err, "55P03") {
			return fmt.Errorf("%w: somebody writes to %s; stop the servers, and try again", ErrStateNotEmpty, table.name)
		} else if err != nil {
			return err
		}
	}
	if _, err := tx.Exec(ctx, `DELETE FROM `+c.table("gpt_clients")+` WHERE client_id = $1`, nobodysClient); err != nil {
		return err
	}
	for _, table := range stateTables {
		if here[table.name] == nil {
			continue
		}
		var used bool
		if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM `+c.table(table.name)+`)`).Scan(&used); err != nil {
			return err
		}
		if used {
			return fmt.Errorf("%w: %s holds rows. Import before a server is started on it; name another database or schema, or remove what is there with caddy oauth migrate --down 0", ErrStateNotEmpty, table.name)
		}
	}
	return nil
}

// importRows inserts the rows of the file in its order, and returns how many
// once the trailer has vouched for them.
func (c *stateConn) importRows(ctx context.Context, tx pgx.Tx, in *stateReader, header StateHeader, told func(int)) (rows int, err error) {
	// A token of the system that went before may refer to one that comes later.
	if _, err := tx.Exec(ctx, `SET CONSTRAINTS ALL DEFERRED`); err != nil {
		return 0, err
	}
	batch := stateBatch{conn: c, columns: header.Tables}
	for {
		table, row, err := in.row()
		if err != nil {
			return 0, err
		}
		if table != batch.table || batch.full() {
			if err := batch.insert(ctx, tx); err != nil {
				return 0, err
			}
		}
		if table == "" { // the trailer
			return rows, nil
		}
		if header.Tables[table] == nil {
			return 0, fmt.Errorf("%w: line %d is of a table that its header does not name", ErrStateFile, in.lines)
		}
		batch.add(table, row)
		if rows++; told != nil {
			told(rows)
		}
	}
}

func (c *stateConn) analyze(ctx context.Context, tx pgx.Tx, header StateHeader) error {
	for _, table := range slices.Sorted(maps.Keys(header.Tables)) {
		if _, err := tx.Exec(ctx, `ANALYZE `+c.table(table)); err != nil {
			return fmt.Errorf("analyze %s: %w", table, err)
		}
	}
	return nil
}

// stateBatch is rows of one table, as a JSON array.
type stateBatch struct {
	conn    *stateConn
	columns map[string][]string
	table   string
	rows    int
	text    bytes.Buffer
}

func (b *stateBatch) full() bool { return b.rows >= importRows || b.text.Len() >= importBytes }

func (b *stateBatch) add(table string, row []byte) {
	b.table = table
	if b.rows++; b.rows > 1 {
		b.text.WriteByte(',')
	}
	b.text.Write(row)
}

func (b *stateBatch) insert(ctx context.Context, tx pgx.Tx) error {
	if b.rows == 0 {
		return nil
	}
	columns := strings.Join(quoteAll(b.columns[b.table]), ", ")
	_, err := tx.Exec(ctx, `INSERT INTO `+b.conn.table(b.table)+` (`+columns+`) SELECT `+columns+` FROM json_populate_recordset(NULL::`+b.conn.table(b.table)+`, $1::text::json)`,
		"["+b.text.String()+"]")
	if pgErr := (*pgconn.PgError)(nil); errors.As(err, &pgErr) && (strings.HasPrefix(pgErr.Code, "22") || strings.HasPrefix(pgErr.Code, "23")) {
		// A value or a reference that the tables do not bear.
		return fmt.Errorf("%w: rows of %s are damaged, or others are missing: %w", ErrStateFile, b.table, err)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", b.table, err)
	}
	b.rows = 0
	b.text.Reset()
	return nil
}

// stateReader reads the lines of a file and sums them up.
type stateReader struct {
	lines   int
	scanner *bufio.Scanner
	sum     hash.Hash
	rows    map[string]int64
}

func newStateReader(r io.Reader) *stateReader {
	s := &stateReader{scanner: bufio.NewScanner(r), sum: sha256.New(), rows: make(map[string]int64)}
	s.scanner.Buffer(make([]byte, 64<<10), maxStateLine)
	return s
}

func (s *stateReader) next() ([]byte, error) {
	if s.scanner.Scan() {
		s.lines++
		return s.scanner.Bytes(), nil
	}
	if err := s.scanner.Err(); err != nil {
		return nil, fmt.Errorf("read the file: %w", err)
	}
	return nil, fmt.Errorf("%w: it ends after line %d, without its last line: the export was interrupted, or the file was cut off", ErrStateFile, s.lines)
}

func (s *stateReader) digest(line []byte) {
	s.sum.Write(line)
	s.sum.Write([]byte{'\n'})
}

func (s *stateReader) header() (header StateHeader, err error) {
	line, err := s.next()
	if err != nil {
		return header, err
	}
	if json.Unmarshal(line, &header) != nil || header.Format != stateFormat {
		return header, fmt.Errorf("%w: it was not written by caddy oauth export", ErrStateFile)
	}
	s.digest(line)
	return header, nil
}

// row returns the next row, or no table when the trailer has vouched for all
// there were.
func (s *stateReader) row() (table string, row json.RawMessage, err error) {
	line, err := s.next()
	if err != nil {
		return "", nil, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(line, &members); err != nil || len(members) != 1 {
		return "", nil, fmt.Errorf("%w: line %d is no row; the file was cut off or changed", ErrStateFile, s.lines)
	}
	if members["end"] != nil {
		return "", nil, s.trailer(line)
	}
	s.digest(line)
	for table, row = range members {
		s.rows[table]++
	}
	return table, row, nil
}

func (s *stateReader) trailer(line []byte) error {
	var trailer stateTrailer
	if err := json.Unmarshal(line, &trailer); err != nil {
		return fmt.Errorf("%w: its last line is damaged", ErrStateFile)
	}
	if trailer.End.SHA256 != hex.EncodeToString(s.sum.Sum(nil)) || !maps.Equal(trailer.End.Rows, s.rows) {
		return fmt.Errorf("%w: it is not what was exported; bytes were changed or lost", ErrStateFile)
	}
	if _, err := s.next(); !errors.Is(err, ErrStateFile) {
		return fmt.Errorf("%w: something follows its last line", ErrStateFile)
	}
	return nil
}
