// A client of colinmarc's Go library that does what lines on its standard input say, and answers each
// with one line: "ok", "ok VALUE" or "failed MESSAGE". The same words, and the same contents of files,
// as ../java/Driver.java.
//
//	driver HOST:PORT USER
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/colinmarc/hdfs/v2"
)

const (
	lineBytes = 20
	blockSize = 1 << 20

	closesMax  = 20
	closePause = 100 * time.Millisecond
)

type file struct {
	writer   *hdfs.FileWriter
	position int64
}

type driver struct {
	client *hdfs.Client
	open   map[string]*file
}

func main() {
	client, err := hdfs.NewClient(hdfs.ClientOptions{Addresses: []string{os.Args[1]}, User: os.Args[2]})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	d := driver{client, map[string]*file{}}
	fmt.Println("ready")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		value, err := d.carryOut(strings.Split(lines.Text(), " "))
		if err != nil {
			fmt.Println("failed", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Println("ok", value)
	}
}

func (d *driver) carryOut(words []string) (any, error) {
	name := ""
	if len(words) > 1 {
		name = words[1]
	}
	number := func() (int64, error) { return strconv.ParseInt(words[2], 10, 64) }
	switch words[0] {
	case "create":
		return d.create(name)
	case "append":
		info, err := d.client.Stat(name)
		if err != nil {
			return nil, err
		}
		writer, err := d.client.Append(name)
		if err != nil {
			return nil, err
		}
		d.open[name] = &file{writer, info.Size()}
		return info.Size(), nil
	case "write":
		length, err := number()
		if err != nil {
			return nil, err
		}
		open := d.open[name]
		if length == 0 {
			return open.position, nil // the library asks for a block even then, and never fills it
		}
		count, err := open.writer.Write(contents(name, open.position, int(length)))
		open.position += int64(count)
		return open.position, err
	case "hflush":
		return "", d.open[name].writer.Flush()
	case "close":
		return "", d.close(name)
	case "read":
		least, err := number()
		if err != nil {
			return nil, err
		}
		return d.read(name, least)
	case "length":
		info, err := d.client.Stat(name)
		if err != nil {
			return nil, err
		}
		return info.Size(), nil
	case "list":
		return d.list(name)
	case "exists":
		_, err := d.client.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	case "rename":
		return "", d.client.Rename(name, words[2])
	case "delete":
		return "", d.client.RemoveAll(name)
	case "mkdirs":
		return "", d.client.MkdirAll(name, 0o755)
	case "chmod":
		mode, err := strconv.ParseUint(words[2], 8, 32)
		if err != nil {
			return nil, err
		}
		return "", d.client.Chmod(name, fs.FileMode(mode))
	case "mode":
		info, err := d.client.Stat(name)
		if err != nil {
			return nil, err
		}
		return fmt.Sprintf("%o", info.Mode().Perm()), nil
	case "summary":
		summary, err := d.client.GetContentSummary(name)
		if err != nil {
			return nil, err
		}
		return fmt.Sprint(summary.FileCount(), summary.DirectoryCount(), summary.Size()), nil
	case "truncate":
		length, err := number()
		if err != nil {
			return nil, err
		}
		return d.client.Truncate(name, length)
	}
	return nil, fmt.Errorf("no such word: %s", words[0])
}

func (d *driver) create(name string) (any, error) {
	if err := d.client.MkdirAll(path.Dir(name), 0o755); err != nil {
		return nil, err
	}
	writer, err := d.client.CreateFile(name, 3, blockSize, 0o644)
	if err != nil {
		return nil, err
	}
	d.open[name] = &file{writer, 0}
	return 0, nil
}

func (d *driver) close(name string) error {
	open := d.open[name]
	delete(d.open, name)
	for left := closesMax; ; left-- {
		err := open.writer.Close()
		if left == 0 || !hdfs.IsErrReplicating(err) {
			return err
		}
		time.Sleep(closePause) // as the library tells its callers to
	}
}

func (d *driver) list(name string) (any, error) {
	infos, err := d.client.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, info := range infos {
		names = append(names, info.Name())
	}
	return strings.Join(names, ","), nil
}

// Reads all there is, which must be right and at least so long; gives its length.
func (d *driver) read(name string, least int64) (any, error) {
	reader, err := d.client.Open(name)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	data, err := io.ReadAll(reader)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(data, contents(name, 0, len(data))) {
		return nil, fmt.Errorf("%s is wrong", name)
	}
	if int64(len(data)) < least {
		return nil, fmt.Errorf("%s ends at byte %d of %d", name, len(data), least)
	}
	return len(data), nil
}

func contents(name string, from int64, length int) []byte {
	crc := crc32.ChecksumIEEE([]byte(path.Base(name)))
	first := from / lineBytes
	var lines bytes.Buffer
	for line := first; line*lineBytes < from+int64(length); line++ {
		fmt.Fprintf(&lines, "%08x %010d\n", crc, line)
	}
	skip := int(from - first*lineBytes)
	return lines.Bytes()[skip : skip+length]
}
